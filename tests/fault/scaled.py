"""Shipper whose gaps grow old sixty times as fast: what is asked for after minutes is asked for after seconds."""

from shipper import position
from shipper.cli import main

SCALE = 60

if __name__ == "__main__":
    position.EAGER_SECONDS //= SCALE
    main(prog_name="shipper")
