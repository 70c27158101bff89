"""The web page of `vlm serve` in a headless Chromium, as a user has it (for scripts/parity_page.py)."""
import base64
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from parity_serve import PICTURES

# As if the user had pasted or dropped a picture.
GIVE = """
const [how, name, base64] = arguments;
const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name, {type: 'image/png'}));
document.dispatchEvent(how === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
                                      : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
"""


class Page:
    def __init__(self, server, folder):
        self.folder = Path(folder)  # for downloads and what the checks write
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,1000",
                         "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]:
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"download.default_directory": str(self.folder / "downloads")})
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
        self.wait(lambda: self.all("#model option"))

    def pick(self, *names):
        self.pick_files(*(PICTURES / f"{name}.png" for name in names))

    def pick_files(self, *paths):
        before = len(self.all("#media li"))
        self.find("files").send_keys("\n".join(map(str, paths)))
        self.wait(lambda: len(self.all("#media li")) == before + len(paths))

    def give(self, how, name):
        """Pastes or drops a picture."""
        before = len(self.all("#media li"))
        data = base64.b64encode((PICTURES / f"{name}.png").read_bytes()).decode()
        self.driver.execute_script(GIVE, how, f"{name}.png", data)
        self.wait(lambda: len(self.all("#media li")) == before + 1)

    def answers(self):
        return self.all("#turns li.assistant")

    def ask(self, question):
        """The answer's element, when it is whole."""
        count = len(self.answers())
        self.find("question").send_keys(question, Keys.ENTER)
        self.wait(lambda: len(self.answers()) > count and self.find("send").is_enabled())
        return self.answers()[-1]

    def tab(self, name):
        self.find(f"{name}_tab").click()
        assert self.find(f"{name}_panel").is_displayed()

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, element, name):
        """The button of that name inside."""
        next(one for one in element.find_elements(By.TAG_NAME, "button") if one.text == name).click()

    def download(self, name, click):
        path = self.folder / "downloads" / name
        path.unlink(missing_ok=True)
        click()
        self.wait(path.exists)
        return path.read_text(encoding="utf-8")

    def open_settings(self):
        if not self.find("settings").get_attribute("open"):
            self.find("settings").find_element(By.TAG_NAME, "summary").click()

    def set(self, name, value):
        self.open_settings()
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
