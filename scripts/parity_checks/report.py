"""The table of comparisons."""
import torch


class Report:
    """The table: one row a comparison."""

    def __init__(self):
        self.rows = []

    def add(self, name, passed, detail):
        self.rows.append((name, passed, detail))
        print(f"  {'ok  ' if passed else 'FAIL'}  {name:<52} {detail}", flush=True)

    def close(self, name, error, limit):
        self.add(name, error <= limit, f"error {error:.1e}, limit {limit:.0e}")

    def equal(self, name, got, wanted):
        same = got == wanted
        self.add(name, same, "equal" if same else f"got {brief(got)}, wanted {brief(wanted)}")

    def attempt(self, name, function, *arguments):
        """A check that stops with an exception is one failed row, not the end of the run."""
        try:
            function(self, name, *arguments)
        except Exception as error:  # noqa: BLE001
            self.add(name, False, f"{type(error).__name__}: {brief(error)}")

    def finish(self):
        failed = [name for name, passed, _ in self.rows if not passed]
        for name in failed:
            print("failed:", name)
        print(f"{len(self.rows) - len(failed)} passed, {len(failed)} failed")
        return 1 if failed or not self.rows else 0


def brief(value, limit=300):
    value = " ".join(str(value).split())
    return value if len(value) <= limit else value[:limit] + "..."


def largest(values):
    """The largest value, NaN when there is one (max() would pass over it)."""
    return torch.tensor(list(values), dtype=torch.float64).max().item()
