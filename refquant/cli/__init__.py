"""The command ``refquant``: one file a command, listed in `refquant.cli.main.COMMANDS`."""
