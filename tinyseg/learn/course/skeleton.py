"""Make an exercise of a source file: the bodies of some functions are taken out, and all else stays as it is."""

import ast


def take_out(source, sentences):
    """Return a source in which the bodies of functions raise NotImplementedError.

    Parameters
    ----------
    source : str
        Of a Python file.
    sentences : dict of str to str
        What the error says, by the name of the function in the file: ``"forward"``, ``"Multiply.backward"``.

    Returns
    -------
    str
        Signatures, decorators and docstrings of these functions are kept.

    Raises
    ------
    ValueError
        If there is no such function, or nothing in it but a docstring.
    """
    lines, functions = source.splitlines(), dict(_functions(ast.parse(source)))
    unknown = [name for name in sentences if name not in functions]
    if unknown:
        raise ValueError(f"expected functions with a body, found none of the name {', '.join(unknown)}.")
    for name in sorted(sentences, key=lambda name: functions[name].lineno, reverse=True):
        node = functions[name]
        documented = ast.get_docstring(node) is not None
        if len(node.body) == documented:
            raise ValueError(f"expected functions with a body, found a docstring alone in {name}.")
        first = node.body[documented]
        begin = node.body[0].end_lineno if documented else first.lineno - 1
        while not documented and lines[begin - 1].lstrip().startswith("#"):  # a comment belongs to the body
            begin -= 1
        lines[begin : node.end_lineno] = [f"{' ' * first.col_offset}raise NotImplementedError({sentences[name]!r})"]
    return "\n".join(lines) + "\n"


def _functions(tree, prefix=""):
    """Yield (name, node) of all functions in the file and in its classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
