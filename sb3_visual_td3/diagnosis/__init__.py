"""Judge a run from its logged series: apply criteria, find causes, give a verdict. Nothing here imports torch.

The live alerts apply the rules to the last updates of a training run. The report applies criteria and rules to a whole
run.
"""
