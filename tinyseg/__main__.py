"""``python -m tinyseg`` is the command ``tinyseg``."""

from tinyseg.commands.main import main

if __name__ == "__main__":
    main()
