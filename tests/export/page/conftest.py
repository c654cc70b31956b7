"""Browsers for the tests of the page; each module has one of its own."""

import pytest

from tests.export.page.browsers import ChromiumPage, FirefoxPage
from tests.export.page.webkit_browser import WebKitPage

BROWSERS = {"chromium": ChromiumPage, "firefox": FirefoxPage, "webkit": WebKitPage}


@pytest.fixture(scope="module", params=BROWSERS)
def browser(request, tmp_path_factory):
    page = BROWSERS[request.param](tmp_path_factory.mktemp(request.param))
    yield page
    page.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    page = ChromiumPage(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()
