"""`python -m unetctl` is the command line."""

from unetctl.cli.app import main

if __name__ == "__main__":
    main()
