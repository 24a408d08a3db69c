"""Run the tests beside this file and annotate each failure with its place, as GitHub's workflow commands want it.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

import sys
import traceback
import unittest
from pathlib import Path

HERE = Path(__file__).parent.resolve()


class AnnotatingResult(unittest.TextTestResult):
    """Prints an ``::error::`` for every test that fails."""

    def addFailure(self, test, err) -> None:  # noqa: ANN001, N802 - unittest's signature
        """Annotate the last line of ours that the traceback passes."""
        super().addFailure(test, err)
        frames = [frame for frame in traceback.extract_tb(err[2]) if HERE in Path(frame.filename).parents]
        place = f"file={Path(frames[-1].filename).relative_to(HERE)},line={frames[-1].lineno}"
        message = str(err[1]).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        print(f"::error {place},title={test.id()}::{message}", flush=True)


tests = unittest.defaultTestLoader.discover(str(HERE))
runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=0, resultclass=AnnotatingResult)
sys.exit(not runner.run(tests).wasSuccessful())
