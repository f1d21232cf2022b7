from .folder import load_run as load_run
from .loaded import LoadedRun as LoadedRun
from .options import Training as Training
from .sharing import save_pair as save_pair
from .training import resume as resume
