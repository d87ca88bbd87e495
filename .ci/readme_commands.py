"""Print the commands of a README's first code block, one a line: what a newcomer would paste."""

import re
import sys


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    block = re.search(r"```(?:bash|sh)\n(.*?)```", text, re.S)
    if block is None:
        raise SystemExit(f"{sys.argv[1]} has no bash block")
    for line in block.group(1).splitlines():
        line = re.sub(r"\s+#.*", "", line).strip()
        if line:
            print(line)


main()
