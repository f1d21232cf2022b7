"""Training and evaluation of Pyro programs: passes, the engine of a step, trainings, evaluations."""
