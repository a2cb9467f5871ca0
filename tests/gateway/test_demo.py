"""The page itself: its files, who may come in, and what it is told of a model."""

import asyncio
from pathlib import Path

import pytest

from cogsmith.gateway.demo.models import abilities
from cogsmith.gateway.demo.routes import PATH
from cogsmith.manifest import Prompt
from cogsmith.prompts import templates
from cogsmith.prompts.templates import Template

from .demo_page import NAME, Model, asked, page

FILES = Path(__file__).parents[2] / "src/cogsmith/gateway/demo/page"
pytestmark = pytest.mark.usefixtures("no_cache")


def test_the_page_is_whole_and_may_load_nothing_from_elsewhere(tmp_path):
    async def run():
        async with page(Model(), tmp_path) as http:
            answers = {path.name: await http.get(PATH + path.name) for path in FILES.iterdir()}
            return await http.get(PATH), answers, await http.get(PATH + "..%2froutes.py"), await http.get(PATH + "x.js")

    index, answers, outside, missing = asyncio.run(run())
    assert index.text == (FILES / "index.html").read_text()
    assert {answer.status_code for answer in answers.values()} == {200}
    assert all("script-src 'self'" in answer.headers["content-security-policy"] for answer in answers.values())
    assert {name: answer.headers["content-type"].partition(";")[0] for name, answer in answers.items()}["main.js"] == (
        "text/javascript"
    )
    assert (outside.status_code, missing.status_code) == (404, 404)
    assert not any("http" in (FILES / name).read_text().replace("http://www.w3.org", "") for name in answers)


def test_a_browser_is_led_to_the_page_and_a_program_is_not(tmp_path):
    async def run():
        async with page(Model(), tmp_path) as http:
            browser = await http.get("/", headers={"accept": "text/html,*/*"}, follow_redirects=False)
            return browser, await http.get("/"), await http.get("/demo", follow_redirects=False)

    browser, program, bare = asyncio.run(run())
    assert (browser.status_code, browser.headers["location"]) == (307, PATH)
    assert (bare.status_code, bare.headers["location"]) == (307, PATH)
    assert program.json()["models"] == {"tiny": "stopped"}


def test_with_a_token_the_page_is_open_and_what_it_asks_for_is_not(tmp_path):
    async def run():
        async with page(Model(), tmp_path, token="secret") as http:
            paths = (PATH, PATH + "main.js", PATH + "api/models", PATH + "api/models/tiny")
            bare = [(await http.get(path)).status_code for path in paths]
            posted = await http.post(PATH + "api/models/tiny/reading", json={"text": "a"})
            known = await http.get(PATH + "api/models", headers={"authorization": "Bearer secret"})
            return bare, posted.status_code, known.status_code

    assert asyncio.run(run()) == ([200, 200, 401, 401], 401, 200)


def test_a_form_of_another_site_can_ask_for_nothing(tmp_path):
    async def run():
        async with page(Model(), tmp_path) as http:
            headers = {"content-type": "text/plain"}
            return await http.post(f"{PATH}api/{NAME}/reading", content='{"text": "a"}', headers=headers)

    assert asyncio.run(run()).status_code == 415


def test_a_model_is_described_with_its_templates(tmp_path):
    status, described = asked(Model(), tmp_path, NAME, prompt=Prompt(template="alpaca"))
    assert status == 200
    assert (described["max_context"], described["dtype"]) == (64, "float32")
    own = described["templates"][0]
    assert own == {"id": "own", "name": "alpaca", "own": True, "conversation": False, "input": True}
    others = {one["id"]: one for one in described["templates"][1:]}
    assert others.keys() == set(templates.names()) - {"caption"}
    assert others["v1"]["conversation"]
    assert not others["v1"]["input"]


def test_what_a_template_takes_shows_when_it_is_used():
    assert abilities(templates.find("alpaca")) == {"conversation": False, "input": True}
    assert abilities(templates.find("dolly-v2")) == {"conversation": False, "input": False}
    assert abilities(templates.find("default")) == {"conversation": True, "input": False}
    assert abilities(Template("bad", "{{ raise_exception('no') }}")) == {"conversation": False, "input": False}


def test_a_model_that_is_not_served_is_not_found(tmp_path):
    assert asked(Model(), tmp_path, "models/other")[0] == 404
