"""How Sphinx builds the site: `make docs`, strict. No step needs the internet.

The pages are Markdown that GitHub shows as well. Links that leave docs/ (to a file of the code, a table of a benchmark)
work there as they stand; here they are turned to a page of the site that shows the same file.
"""

import hashlib
import importlib.util
import os
import pathlib
import re
import sys

import docutils.nodes

import tinyseg
from tinyseg.export.page.html import write_html
from tinyseg.learn import figures
from tinyseg.models import checkpoint

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]  # convert.py, fill.py; benchmarks/, reproduction/
import fill  # noqa: E402
from convert import convert, turned  # noqa: E402

project = "tinyseg"
author = "The tinyseg developers"
copyright = author
version = release = tinyseg.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
if importlib.util.find_spec("sphinx-mathjax-offline"):  # equations show without internet; else MathJax's own server
    extensions.append("sphinx-mathjax-offline")
exclude_patterns = ["_build", "slides", "conf.py", "convert.py", "fill.py", "op_figures", "slides.py", "transcripts.py"]
templates_path = ["_templates"]

# ----- Markdown ------------------------------------------------------------------
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False


# ----- notebooks: run when they or the library changed; an error, or a cell that takes too long, fails the build ---
def _fingerprint():
    digest = hashlib.sha256()
    for path in sorted(path for ending in ("*.py", "*.cu") for path in (ROOT / "tinyseg").rglob(ending)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_custom_formats = {".py": ["convert.read", {}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / f"notebooks-{_fingerprint()}")
nb_execution_timeout = 300  # seconds a cell: ten times what it needs on two idle cores with kernels compiled
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_code_prompt_show = "Show the code"

# ----- the reference, from docstrings --------------------------------------------
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_typehints = "none"
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_param = napoleon_use_rtype = False  # types are sentences ("shape (N, C, H, W)"), not links
napoleon_use_ivar = True
default_role = "py:obj"  # `name` in a docstring is a link where there is such a thing, code where there is not

# ----- looks ---------------------------------------------------------------------
html_theme = "furo"
html_title = "tinyseg"
html_static_path = ["_static"]
html_css_files = ["tinyseg.css"]
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
highlight_language = "text"  # blocks that name no language: shell commands, equations
pygments_style, pygments_dark_style = "friendly", "github-dark"
mathjax3_config = {"chtml": {"displayAlign": "left", "displayIndent": "1.5em"}}


# ----- links out of docs/ --------------------------------------------------------
ALWAYS = ["../CHANGELOG.md", "../CONTRIBUTING.md"]  # in the table of contents
LANGUAGES = {".py": "python", ".cu": "cuda", ".toml": "toml"}


def write_source_pages(app):
    """Make the page source/<path> of every file outside docs/ that a page, or such a file, links to."""
    written = [*DOCS.rglob("*.md"), *DOCS.glob("notebooks/*.py")]
    pages, done = [p for p in written if p.relative_to(DOCS).parts[0] not in ("_build", "source")], set()
    while pages:
        page = pages.pop()
        links = [*ALWAYS, *_targets(page.read_text())] if page == DOCS / "index.md" else _targets(page.read_text())
        for path in filter(None, (_outside(target, page.parent) for target in links)):
            if path in done:
                continue
            done.add(path)
            _write_if_changed(DOCS / "source" / f"{path.removesuffix('.md')}.md", _source_page(path))
            if path.endswith(".md"):
                pages.append(ROOT / path)


def _source_page(path):
    up = "../" * len(pathlib.Path(path).parts)  # from source/<path> to docs/
    if path.endswith(".md"):  # shown as what it is, its links seen from here

        def moved(target):
            seen_from_docs = os.path.relpath((ROOT / path).parent / target, DOCS)
            return up + seen_from_docs if (DOCS / seen_from_docs).exists() else target

        text = turned((ROOT / path).read_text(), moved)
        return text if path != "README.md" else re.sub(r"^# tinyseg", "# README", text)
    return (
        f"---\norphan: true\n---\n\n# {path}\n\n"
        f"```{{literalinclude}} {up}../{path}\n:language: {LANGUAGES[pathlib.Path(path).suffix]}\n:linenos:\n```\n"
    )


def _targets(markdown):
    return re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", markdown)


def _outside(target, folder):
    """Path, from the root of the repository, of a file outside docs/ that gets a page; None for anything else."""
    path = pathlib.Path(os.path.normpath(folder / target))
    path = path / "__init__.py" if path.is_dir() else path
    shown = path.suffix in LANGUAGES or path.suffix == ".md"
    if not shown or not path.is_file() or not path.is_relative_to(ROOT) or path.is_relative_to(DOCS):
        return None
    return path.relative_to(ROOT).as_posix()


def _write_if_changed(page, text):
    if not page.exists() or page.read_text() != text:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)


def turn_links(app, docname, source):
    """Point a page's links out of docs/ at the pages that show those files."""
    folder = (DOCS / docname).parent

    def to_its_page(match):
        words, target = match.groups()
        path = _outside(target, folder)
        return f"[{words}](/source/{path.removesuffix('.md')}.md)" if path else match[0]

    source[0] = re.sub(r"(?<!!)\[([^\[\]]*)\]\((?!\w+:|#)([^)#\s]+)\)", to_its_page, source[0])


# ----- a notebook's page offers it for download -----------------------------------
def offer_notebook(app, pagename, templatename, context, doctree):
    """Put a link to the .ipynb file, without outputs, at the head of a notebook's page."""
    source = DOCS / f"{pagename}.py"
    if not source.exists():
        return
    name = convert(source, pathlib.Path(app.outdir) / "_downloads" / "notebooks", beside_docs=False).name
    link = f'<a class="notebook" href="../_downloads/notebooks/{name}" download>Download {name}</a>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


# ----- pictures of notebooks hold their own description ----------------------------
def describe_pictures(app, doctree):
    """Give a notebook's pictures the words that they carry, for readers who cannot see them."""
    for image in doctree.findall(docutils.nodes.image):
        path = pathlib.Path(app.env.relfn2path(image["uri"])[1])
        if "alt" not in image and path.parent.name == "jupyter_execute" and path.suffix in (".png", ".gif"):
            image["alt"] = figures.describe(path).get("words", "")


# ----- a trained network, as the page that tinyseg writes of it --------------------
def write_membranes(app, error):
    """Export the network of play/membranes.md into the site, by the exporter as it is now."""
    if error is None and app.builder.format == "html":
        network = checkpoint.load(DOCS / "play" / "membranes.safetensors")
        page = pathlib.Path(app.outdir) / "_static" / "play" / "membranes.html"
        write_html(page, network, example=DOCS / "play" / "membranes.png")


# ----- docstrings are plain text with equations ----------------------------------
def plain_text(app, what, name, obj, options, lines):
    """Make reStructuredText of a docstring that is written for people: indented equations stay as they are typed.

    Runs before napoleon. Indented blocks of modules become literal blocks; |z| and name_ mean no more than they say.
    """
    if what == "module":
        lines[:] = list(_literal_blocks(lines))
    for i, line in enumerate(lines):
        if not line.startswith("    ") or what != "module":
            lines[i] = _escaped(line)


def skip_fields(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, of which Python says no more than their number."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def _literal_blocks(lines):
    inside, before, said = False, "", ""  # said: the last line with something on it
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside and not before.strip() and not said.endswith("::"):
            yield from ("::", "")
        inside = indented or (inside and not line.strip())
        before, said = line, line if line.strip() else said
        yield line


def _escaped(line):
    parts = re.split(r"(``.*?``|`[^`]*`)", line)  # code stays as it is
    return "".join(p if p.startswith("`") else re.sub(r"\||(?<=\w)_(?![\w])", r"\\\g<0>", p) for p in parts)


def setup(app):
    """Tell Sphinx of the functions above."""
    app.connect("builder-inited", lambda app: fill.check())
    app.connect("builder-inited", write_source_pages, priority=100)
    app.connect("autodoc-process-docstring", plain_text, priority=100)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("source-read", turn_links)
    app.connect("html-page-context", offer_notebook)
    app.connect("doctree-read", describe_pictures, priority=100)  # before Sphinx gathers the images
    app.connect("build-finished", write_membranes)
