"""Uses the web page of `vlm serve` in a headless Chromium (a part of scripts/parity_serve).

Skipped, in words, where there is no Chromium with its driver. --screenshots FOLDER keeps pictures
of the page. Prints a line a check; the exit status is 1 when anything failed.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from page_driver import Page, prompt_tokens_of, text_of
from parity_page_tabs import QUESTION, check_batch, check_batch_rows, check_history, check_training
from parity_serve import MODEL, NAME, QUESTIONS, ROOT, Checks, Server, generate

# The next answer is this text, whatever the model says.
SAY = r"""
const [text] = arguments;
const send = window.fetch;
window.fetch = (url, options) => {
  if (!String(url).endsWith('chat/completions')) return send(url, options);
  window.fetch = send;
  const event = (delta, end) => `data: ${JSON.stringify({choices: [{index: 0, delta, finish_reason: end}]})}\n\n`;
  const events = [...text].map((content) => event({content}, null)).join('') + event({}, 'stop') + 'data: [DONE]\n\n';
  return Promise.resolve(new Response(events));
};
"""
# What a click copies is kept.
CATCH_COPIES = "navigator.clipboard.writeText = async (text) => { window.copied = text; };"


def check_answers(page, program):
    name, question = QUESTIONS[0]
    page.pick(name)
    first = page.ask(question)
    assert text_of(first) == generate(program, name, question)["text"], text_of(first)
    # The second turn sees the picture of the first.
    second = page.ask("what color is it?")
    assert prompt_tokens_of(second) > prompt_tokens_of(first) + 5
    page.find("again").click()
    assert not page.answers()
    name, question = QUESTIONS[1]
    page.give("paste", name)
    pasted = page.ask(question)
    assert text_of(pasted) == generate(program, name, question)["text"], text_of(pasted)
    one = prompt_tokens_of(pasted)
    page.find("again").click()
    page.pick(QUESTIONS[0][0], QUESTIONS[1][0])
    assert prompt_tokens_of(page.ask(question)) >= one + 16  # tokens of a picture
    page.find("again").click()


def check_removing(page, _):
    page.pick(QUESTIONS[0][0])
    page.give("drop", QUESTIONS[1][0])
    for left in [1, 0]:
        page.all("#media li button")[0].click()
        assert len(page.all("#media li")) == left


def check_clip(page, program):
    clip = ROOT / "examples" / "clips" / "left.mp4"
    question = "where does the shape move?"
    page.pick_files(clip)
    assert page.all("#media li video")
    done = subprocess.run([program, "video", "--model", MODEL, "--device", "cpu", "--threads", "1", "--question",
                           question, "--output", page.folder / "clip.jsonl", clip],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = json.loads((page.folder / "clip.jsonl").read_text())["text"]
    answer = page.ask(question)
    assert text_of(answer) == wanted, (text_of(answer), wanted)
    page.find("again").click()


def check_choices(page, _):
    page.pick("shape_074")
    evil = "<img src=x onerror=document.title='evil'>"
    page.set("choices", f"circle\ntriangle\n{evil}")
    answer = page.ask("what shape is in the image?")
    assert text_of(answer) == "triangle"
    bars = answer.find_elements(By.CLASS_NAME, "bar")
    assert len(bars) == 3 and bars[0].text.startswith("triangle"), [bar.text for bar in bars]
    assert any(evil in bar.text for bar in bars) and page.driver.title == "vlm"
    page.set("choices", "")
    page.find("again").click()


def check_schema(page, _):
    page.set("schema", '{"type": "object", "properties": {"shape": {"enum": ["circle", "square"]}}, '
                       '"required": ["shape"]}')
    page.pick("shape_049")
    answer = page.ask(QUESTION)
    assert list(json.loads(answer.find_element(By.TAG_NAME, "code").text)) == ["shape"], answer.text
    assert "satisfies the schema" in answer.text
    page.set("schema", "{")
    assert "The schema is no JSON" in page.find("settings_problem").text
    page.find("question").send_keys("?", Keys.ENTER)
    page.wait(lambda: "The schema is no JSON" in page.find("problem").text)
    page.find("question").clear()
    page.set("schema", "")
    page.find("again").click()


def check_errors(page, _):
    page.set("max_tokens", "0")
    page.find("question").send_keys("hello", Keys.ENTER)
    page.wait(lambda: "max_tokens" in page.find("problem").text)
    assert page.find("question").get_attribute("value") == "hello"  # to be changed and sent
    page.find("question").clear()
    page.set("max_tokens", "")
    page.find("again").click()


def check_certainty(page, _):
    page.set("system", "")
    page.find("certainty").click()
    page.pick("shape_049")
    words = page.ask("what shape is in the image?").find_elements(By.CSS_SELECTOR, ".text span")
    assert words and "%" in words[0].get_attribute("title")
    page.find("certainty").click()
    page.find("again").click()


def check_stop(page, _):
    """A click on Stop ends the request on the server."""
    page.driver.execute_script("""
      const send = window.fetch;
      window.fetch = (url, options) => {
        if (options?.body) options.body = JSON.stringify({...JSON.parse(options.body), min_tokens: 100000});
        return send(url, options);
      };""")
    page.driver.execute_script("""
      new MutationObserver(() => {
        if (document.querySelector('#turns li.assistant .text')?.textContent) document.getElementById('stop').click();
      }).observe(document.getElementById('turns'), {childList: true, subtree: true});""")
    page.find("question").send_keys("hello", Keys.ENTER)
    page.wait(lambda: page.answers() and "stopped" in page.answers()[-1].text)
    page.wait(lambda: page.server.metric("vlm_num_requests_running") == 0)
    cancelled = 'vlm_request_finished_total{model="easy-vqa-emoji",reason="cancelled"}'
    page.wait(lambda: page.server.metric(cancelled) == 1)
    page.driver.refresh()


def check_markdown(page, _):
    """Markup is shown as such, but nothing that would load or run."""
    evil = "<img src=x onerror=document.title='evil'> ![a](http://127.0.0.1:1/a.png) [b](javascript:alert(1))"
    page.driver.execute_script(SAY, f"# Shapes\n\n1. a `circle`\n2. **two** \U0001f642\n\n```\ncode <b>\n```\n{evil}")
    text = page.ask("?").find_element(By.CLASS_NAME, "text")
    assert evil in text.text, text.text
    assert not text.find_elements(By.CSS_SELECTOR, "img, a, script"), text.get_attribute("innerHTML")
    assert page.driver.title == "vlm"
    for selector, wanted in [("h3", "Shapes"), ("ol li code", "circle"), ("ol strong", "two"), ("pre", "code <b>")]:
        assert text.find_element(By.CSS_SELECTOR, selector).text == wanted
    page.find("again").click()


def check_again(page, program):
    """Edit and Again: another way from a turn on."""
    name, question = QUESTIONS[0]
    page.pick(name)
    page.ask(question)
    page.ask("what color is it?")
    page.click(page.all("#turns li.user")[0], "Edit")
    assert page.find("question").get_attribute("value") == question and len(page.all("#media li")) == 1
    assert not page.all("#turns li")
    page.find("question").clear()
    answer = page.ask(QUESTIONS[3][1])
    assert text_of(answer) == generate(program, name, QUESTIONS[3][1])["text"], text_of(answer)
    page.click(answer, "Again")
    page.wait(lambda: page.find("send").is_enabled() and page.answers() and "tokens" in page.answers()[0].text)
    assert text_of(page.answers()[0]) == generate(program, name, QUESTIONS[3][1])["text"]
    assert len(page.all("#turns li.user")) == len(page.answers()) == 1
    page.find("again").click()


def check_compare(page, _):
    page.open_settings()
    page.find("compare").send_keys("twin")
    page.pick("shape_074")
    answer = page.ask(QUESTION)
    names = [one.text for one in answer.find_elements(By.CLASS_NAME, "model")]
    texts = [one.text for one in answer.find_elements(By.CLASS_NAME, "text")]
    assert names == [NAME, "twin"] and texts == ["triangle", "triangle"], (names, texts)
    page.driver.execute_script("document.getElementById('compare').value = ''")
    page.find("again").click()
    # Another model for the next conversation.
    page.driver.execute_script(CATCH_COPIES + "document.getElementById('model').value = 'twin'")
    answer = page.ask("hello")
    page.click(answer, "Copy as curl")
    page.wait(lambda: '"model":"twin"' in page.driver.execute_script("return window.copied ?? ''"))
    page.driver.execute_script(f"document.getElementById('model').value = '{NAME}'")
    page.find("again").click()


def check_copies(page, _):
    """What is copied asks the same elsewhere."""
    page.driver.execute_script(CATCH_COPIES)
    page.pick("shape_074")
    answer = page.ask(QUESTION)
    variables = dict(os.environ, VLM_API_KEY=page.server.key)
    for name, command in [("Copy as curl", ["bash", "-s"]), ("Copy as Python", [sys.executable, "-"])]:
        page.click(answer, name)
        take = "const text = window.copied; window.copied = ''; return text"
        copied = page.wait(lambda: page.driver.execute_script(take))
        assert page.server.key not in copied
        done = subprocess.run(command, input=copied, capture_output=True, text=True, env=variables, check=False)
        assert "triangle" in done.stdout, done
    page.find("again").click()


def check_camera(page, _):
    page.find("camera").click()
    page.wait(lambda: page.driver.execute_script("return document.getElementById('camera_view').videoWidth > 0"))
    page.find("camera_take").click()
    page.wait(lambda: page.all("#media li img"))
    assert text_of(page.ask("what color is the shape?"))
    page.find("again").click()


def check_narrow(page, _):
    """On a telephone nothing stands out to the side."""
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True})
    for tab in ["ask", "batch", "training", "history"]:
        page.tab(tab)
        width = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360, (tab, width)
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.tab("ask")


def check_console(page, _):
    messages = [one for one in page.console() if "400 (Bad Request)" not in one["message"]]
    assert not messages, messages


def take_screenshots(page, folder):
    page.pick("shape_074", "shape_049")
    page.ask(QUESTION)
    page.set("choices", "circle\ntriangle\nrectangle")
    page.ask("what shape is in the second image?")
    page.driver.save_screenshot(str(folder / "page.png"))
    page.set("choices", "")
    page.tab("batch")
    page.find("batch_folder").send_keys(str(page.folder / "pictures"))
    page.find("batch_question").clear()
    page.find("batch_question").send_keys("what shape is in the image?")
    page.find("batch_start").click()
    page.wait(lambda: page.find("batch_state").text == "20 of 20 done, 0 errors")
    page.driver.execute_script("window.scrollTo(0, 0)")
    page.driver.save_screenshot(str(folder / "page_batch.png"))


CHECKS = [("key", lambda page, _: page.give_key()), ("answers", check_answers), ("removing", check_removing),
          ("clip", check_clip),
          ("choices", check_choices), ("schema", check_schema), ("errors", check_errors),
          ("certainty", check_certainty), ("stop", check_stop), ("markdown", check_markdown), ("again", check_again),
          ("compare", check_compare), ("copies", check_copies), ("camera", check_camera), ("history", check_history),
          ("batch", check_batch), ("batch rows", check_batch_rows), ("training", check_training),
          ("narrow", check_narrow), ("console", check_console)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "build" / "vlm", type=Path)
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of the page")
    parser.add_argument("--only", default="", help="checks whose name holds this text")
    arguments = parser.parse_args()
    chosen = [(name, check) for name, check in CHECKS if arguments.only in f"page: {name}"]
    if not chosen:
        return 0
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        print("page: skipped, as there is no chromium with chromedriver (apt install chromium chromium-driver)")
        return 0
    program = arguments.program.resolve()
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder, \
            Server(program, "--served-model-name", NAME, "--served-model-name", "twin", "--training", folder) as server:
        page = Page(server, folder)
        if CHECKS[0] not in chosen:
            page.give_key()
        for name, check in chosen:
            if not checks.run(f"page: {name}", check, page, program):
                page.driver.refresh()
        if arguments.screenshots:
            take_screenshots(page, arguments.screenshots)
        page.driver.quit()
    return checks.finish("page")


if __name__ == "__main__":
    sys.exit(main())
