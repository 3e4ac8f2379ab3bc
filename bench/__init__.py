"""Every figure that the project claims, as a script that prints it beside a baseline."""
