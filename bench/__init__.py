"""The performance harness: every figure is printed as one JSON line, timings as ratios where there is a floor."""
