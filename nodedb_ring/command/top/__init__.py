"""The command ``top``: a bus between processes, watched while it runs. Only its view on a terminal needs ``rich``."""
