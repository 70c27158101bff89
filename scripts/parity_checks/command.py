"""The binary under test, as a command."""
import os
import subprocess


class Command:
    def __init__(self, binary, work):
        """`work`: a folder whose `cache` the program uses in the place of the user's."""
        self.binary, self.work = binary, work
        self.environment = os.environ | {"XDG_CACHE_HOME": str(work / "cache")}

    def run(self, *arguments):
        done = subprocess.run([str(self.binary), *map(str, arguments)], capture_output=True, text=True, timeout=600,
                              env=self.environment)
        if done.returncode != 0:
            raise RuntimeError(f"vlm {arguments[0]}: {done.stderr[-300:]}")
        return done.stdout
