"""One set of pure rules over named series: criteria, verdict and causes, without torch."""
