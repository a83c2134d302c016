"""Shipper whose gaps grow old sixty times as fast: what is asked for after minutes is asked for after seconds."""

from shipper.cli import main
from shipper.core import position

SCALE = 60

if __name__ == "__main__":
    position.EAGER_SECONDS //= SCALE
    main(prog_name="shipper")
