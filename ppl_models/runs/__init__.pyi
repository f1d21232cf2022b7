from .folders.folder import load_run as load_run
from .folders.loaded import LoadedRun as LoadedRun
from .folders.sharing import save_pair as save_pair
from .naming.options import Training as Training
from .training import resume as resume
