"""From totals to datapoints that Graphite holds."""
