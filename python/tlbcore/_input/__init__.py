"""What arguments and files say: CPU lists, numbers, names with `did you mean`, a kernel's command line."""
