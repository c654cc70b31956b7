"""Make Tables 1 to 3 in Markdown, the paper's figures beside ours."""

from reproduction import paper
from reproduction.results import Results

ISBI = {
    "loss": "loss", "accuracy": "accuracy", "mean_iou": "mean IoU", "dice": "Dice", "membrane_iou": "membrane IoU",
    "v_rand": "V^Rand", "v_info": "V^Info",
}  # fmt: skip
BRATS = {
    "train_loss": "training loss", "accuracy": "accuracy", "dice": "Dice", "whole tumour": "whole tumour",
    "tumour core": "tumour core", "enhancing": "enhancing", "small": "small tumours", "large": "large tumours",
}  # fmt: skip


def all_tables(results):
    """Make every table that there are results for.

    Parameters
    ----------
    results : dict
        The content of the results.json of `examples/reproduce_tables.py`.

    Returns
    -------
    dict of str to str
        Markdown by the name of the table: "table 1" and so on.
    """
    parts = {}
    if "costs" in results:
        parts["table 1"] = table_1(results["costs"]["networks"]) + notes(paper.TABLE_1_NOTES)
    for kind, name, columns, published, remarks in (
        ("isbi", "table 2", ISBI, paper.TABLE_2, paper.TABLE_2_NOTES),
        ("brats", "table 3", BRATS, paper.TABLE_3, paper.TABLE_3_NOTES),
    ):
        if kind in results:
            study = results[kind]
            seeds = "one seed" if study["seeds"] == 1 else f"{study['seeds']} seeds"
            head = f"`{study['command']}` and so on: {seeds} each, the last epoch of every run.\n\n"
            parts[name] = head + scores(study["rows"], columns, published) + notes(remarks)
    return parts


def figures(results):
    """Return the results with their tables, and with the quotients of U-Net's costs and SD-UNet's as ``ratios``.

    Beside its own parts, ``costs``, ``isbi`` and ``brats``, it may have other studies by name, each again the content
    of a results.json; they get their tables, too.
    """
    unet, sdunet = (results["costs"]["networks"][name] for name in ("unet", "sdunet"))
    others = {name: part | all_tables(part) for name, part in results.items() if name not in Results.__struct_fields__}
    ratios = {key: unet[key] / sdunet[key] for key in unet if key in sdunet}
    return results | others | all_tables(results) | {"ratios": ratios}


def table_1(costs):
    """Make Table 1: what the networks cost. A column for each network, since there are fewer of these than of figures.

    Parameters
    ----------
    costs : dict of str to dict
        For each of `paper.ROWS`: ``parameters``, ``multiply_adds`` and, if they were measured, ``milliseconds``,
        ``pytorch_milliseconds`` and ``ratio``.

    Returns
    -------
    str
        Markdown.
    """
    names = [
        "parameters", "*paper*", "2 × parameters", '*paper, "FLOPs"*', "multiply-adds", "weights, 4 B",
        "with Adam's, 12 B", "*paper, size*", "tinyseg", "PyTorch", "ratio", "*paper, K40c*",
    ]  # fmt: skip
    columns = []
    for name in paper.ROWS:
        ours, theirs = costs[name], paper.TABLE_1[name]
        n = ours["parameters"]
        columns.append(
            [
                f"{n:,}", f"*{theirs['parameters']:g} M*", f"{2e-6 * n:.2f} M", f"*{theirs['flops']:g} M*",
                f"{1e-9 * ours['multiply_adds']:.2f} G", f"{4e-6 * n:.1f} MB", f"{12e-6 * n:.1f} MB",
                f"*{theirs['megabytes']:g} MB*", _in_ms(ours.get("milliseconds")),
                _in_ms(ours.get("pytorch_milliseconds")), _text(ours.get("ratio"), 2),
                f"*{theirs['milliseconds']} ms*",
            ]
        )  # fmt: skip
    return table(["", *paper.ROWS.values()], [list(row) for row in zip(names, *columns, strict=True)])


def scores(rows, columns, published):
    """Make Table 2 or 3: the scores of trained networks.

    Parameters
    ----------
    rows : dict of str to dict
        For each network: ``title``, ``model``, ``figures`` (for each of `columns` what `study.spread` returns), and
        ``failed``: what ended the runs that have no figures.
    columns : dict of str to str
        Names of the figures, and the titles of their columns.
    published : dict of str to dict
        The paper's figures by model.

    Returns
    -------
    str
        Markdown.
    """
    lines = []
    for name, row in rows.items():
        cells = [_spread(row["figures"].get(key)) for key in columns]
        failed = f" ({len(row['failed'])} runs failed)" if row["failed"] else ""
        lines.append([row["title"] + failed, *cells])
        if name in published:
            theirs = [published[name].get(key) for key in columns]
            lines.append([f"*{row['title']}, paper*", *(f"*{_text(v, 4)}*" if v else "–" for v in theirs)])
    return table(["network", *columns.values()], lines)


def table(head, rows, text_columns=1):
    """Make a Markdown table; the first columns hold text, the others numbers. None becomes a dash."""
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    lines = [head, rule, *[["–" if cell is None else str(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def notes(texts):
    """Make the list of remarks below a table."""
    return "\n" + "".join(f"- {text}\n" for text in texts)


def _text(value, digits):
    return None if value is None else f"{value:.{digits}f}"


def _in_ms(value):
    return None if value is None else f"{value:.3g} ms"


def _spread(found):
    """Return mean ± deviation of a figure as text."""
    if found is None or found["mean"] is None:
        return None
    mean = f"{found['mean']:.3f}"
    return mean if found["std"] is None else f"{mean} ± {found['std']:.3f}"
