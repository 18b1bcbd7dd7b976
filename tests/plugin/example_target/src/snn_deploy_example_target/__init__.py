"""An example of a target that lives in a package of its own."""
