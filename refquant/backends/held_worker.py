"""The worker of `refquant.backends.held_runner`: one engine of PyTorch, asked through a pipe. ``python -m refquant.backends.held_worker onednn``"""

import os
import sys

from refquant.backends.held_frames import read_frame, write_frame
from refquant.backends.torch_runner import TorchRunner
from refquant.verify import from_plain

__all__ = ["serve"]


def _answer(runner, head, arrays):
    if head["ask"] == "describe":
        return runner.describe(), []
    problem = from_plain(head["problem"], arrays)
    if head["ask"] == "supports":
        return {"reason": runner.supports(problem)}, []
    return {}, [runner.run(problem)]


def serve(runner, questions, answers):
    """Answer one message after the other until the stream ends."""
    while (message := read_frame(questions)) is not None:
        try:
            head, arrays = _answer(runner, *message)
        except Exception as error:  # whatever an engine raises goes to whoever asked
            head, arrays = {"error": f"{type(error).__name__}: {error}"}, []
        write_frame(answers, head, arrays)


def main():
    """Serve the engine named on the command line; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(TorchRunner(sys.argv[1]), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
