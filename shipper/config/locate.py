"""tree-sitter: on which line of a TOML file a key stands.

The standard library's parser gives values without places. This one is only asked once something is wrong.
"""

from collections.abc import Sequence

import tree_sitter
import tree_sitter_toml

Path = tuple[str | int, ...]


def line_of(text: str, paths: Sequence[Path]) -> list[int]:
    """Return, for each path of keys, the line where it stands, or else where the table stands that lacks it."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    lines: dict[Path, int] = {(): 1}
    _walk(parser.parse(text.encode()).root_node, (), lines)
    return [next(lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines) for path in paths]


def _walk(node: tree_sitter.Node, path: Path, lines: dict[Path, int]) -> None:
    for child in node.named_children:
        if child.type not in {"pair", "table", "table_array_element"}:
            continue
        key, *rest = child.named_children
        below = path
        for name in _names(key):
            below = (*below, name)
            lines.setdefault(below, child.start_point.row + 1)
        lines[below] = child.start_point.row + 1
        if child.type != "pair":
            _walk(child, below, lines)
        elif rest and rest[0].type == "inline_table":
            _walk(rest[0], below, lines)


def _names(key: tree_sitter.Node) -> list[str]:
    if key.type == "dotted_key":
        return [name for part in key.named_children for name in _names(part)]
    text = (key.text or b"").decode()
    return [text[1:-1] if key.type == "quoted_key" else text]
