"""Shipper with gaps that grow old sixty times as fast: looks that come after minutes come after seconds."""

from shipper.cli.commands import main
from shipper.core import position

SCALE = 60

if __name__ == "__main__":
    position.EAGER_SECONDS //= SCALE
    main(prog_name="shipper")
