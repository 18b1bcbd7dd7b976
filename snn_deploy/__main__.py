"""``python -m snn_deploy``."""

from snn_deploy.cli.main import main

main()
