"""One set of pure rules over named series: criteria, verdict and causes, without torch.

The live alerts run the rules over a window of the last updates. The report runs criteria and rules over a whole run.
"""
