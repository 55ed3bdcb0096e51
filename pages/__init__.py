"""Writers of the generated pages under docs/; they are no part of the package."""
