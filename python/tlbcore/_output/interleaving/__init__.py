"""A counterexample in other forms than its text: what holds after each move, a diagram, a mail, steps in a terminal."""
