from .folder import LoadedRun as LoadedRun, load_run as load_run
from .options import Training as Training
from .training import resume as resume
