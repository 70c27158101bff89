"""Uses the web page of `vlm serve` in a headless Chromium (a part of scripts/parity_serve).

Skipped, in words, where there is no Chromium with its driver. --screenshot FILE keeps a picture of
the page. Prints a line a check; the exit status is 1 when anything failed.
"""
import argparse
import base64
import shutil
import sys
import time
import traceback
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from parity_serve import PICTURES, QUESTIONS, ROOT, Server, generate

DROP = """
const [name, base64] = arguments;
const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name, {type: 'image/png'}));
document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
"""


class Page:
    def __init__(self, server):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,1000"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.server = server
        self.driver.get(server.url.removesuffix("v1"))

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def wait(self, is_so, seconds=60):
        return WebDriverWait(self.driver, seconds).until(lambda _: is_so())

    def give_key(self):
        self.wait(lambda: self.find("key_dialog").is_displayed())
        self.find("key").send_keys(self.server.key, Keys.ENTER)
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "#model option"))

    def pick(self, *names):
        before = len(self.driver.find_elements(By.CSS_SELECTOR, "#media li"))
        self.find("files").send_keys("\n".join(str(PICTURES / f"{name}.png") for name in names))
        self.wait(lambda: len(self.driver.find_elements(By.CSS_SELECTOR, "#media li")) == before + len(names))

    def paste(self, name):
        before = len(self.driver.find_elements(By.CSS_SELECTOR, "#media li"))
        data = base64.b64encode((PICTURES / f"{name}.png").read_bytes()).decode()
        self.driver.execute_script(DROP, f"{name}.png", data)
        self.wait(lambda: len(self.driver.find_elements(By.CSS_SELECTOR, "#media li")) == before + 1)

    def answers(self):
        return self.driver.find_elements(By.CSS_SELECTOR, "#turns li.assistant")

    def ask(self, question):
        """The answer's element, when it is whole."""
        count = len(self.answers())
        self.find("question").send_keys(question, Keys.ENTER)
        self.wait(lambda: len(self.answers()) > count and self.find("send").is_enabled())
        return self.answers()[-1]

    def set(self, name, value):
        if not self.find("settings").get_attribute("open"):
            self.find("settings").find_element(By.TAG_NAME, "summary").click()
        self.find(name).clear()
        if value:
            self.find(name).send_keys(value)

    def console(self):
        # The one request that asked for the key.
        return [one for one in self.driver.get_log("browser") if "401" not in one["message"]]


def text_of(answer):
    return answer.find_element(By.CLASS_NAME, "text").text


def prompt_tokens_of(answer):
    return int(answer.find_element(By.CSS_SELECTOR, ".facts span").text.split()[0])


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
    page.paste(name)
    pasted = page.ask(question)
    assert text_of(pasted) == generate(program, name, question)["text"], text_of(pasted)
    one = prompt_tokens_of(pasted)
    page.find("again").click()
    page.pick(QUESTIONS[0][0], QUESTIONS[1][0])
    assert prompt_tokens_of(page.ask(question)) >= one + 16  # tokens of a picture
    page.find("again").click()


def check_removing(page, _):
    page.pick(QUESTIONS[0][0], QUESTIONS[1][0])
    page.driver.find_element(By.CSS_SELECTOR, "#media li button").click()
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#media li")) == 1
    page.driver.find_element(By.CSS_SELECTOR, "#media li button").click()


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
    answer = text_of(page.ask("what shape is in the image?"))
    assert '"shape"' in answer, answer
    page.set("schema", "{")
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


def check_console(page, _):
    messages = [one for one in page.console() if "400 (Bad Request)" not in one["message"]]
    assert not messages, messages


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "build" / "vlm", type=Path)
    parser.add_argument("--screenshot", type=Path, help="file for a picture of the page")
    arguments = parser.parse_args()
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        print("page: skipped, as there is no chromium with chromedriver (apt install chromium chromium-driver)")
        return 0
    program = arguments.program.resolve()
    failed = 0
    with Server(program) as server:
        page = Page(server)
        checks = [("key", lambda page, _: page.give_key()), ("answers", check_answers), ("removing", check_removing),
                  ("choices", check_choices), ("schema", check_schema), ("errors", check_errors),
                  ("certainty", check_certainty), ("stop", check_stop), ("console", check_console)]
        for name, check in checks:
            start = time.time()
            try:
                check(page, program)
                print(f"ok    page: {name} ({time.time() - start:.1f} s)", flush=True)
            except Exception:
                failed += 1
                print(f"wrong page: {name}\n{traceback.format_exc(limit=-2)}", flush=True)
                page.driver.refresh()
        if arguments.screenshot:
            page.pick("shape_074", "shape_049")
            page.ask("what shape is in the image?")
            page.set("choices", "circle\ntriangle\nrectangle")
            page.ask("what shape is in the second image?")
            page.driver.save_screenshot(str(arguments.screenshot))
        page.driver.quit()
    print(f"page: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
