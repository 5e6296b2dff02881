"""The pages of LeNet-5 and ResNet-20 are painted within a second, and answer within a tenth of one."""

import numpy as np
import pytest
from headless import chromium, visit

from tinycnn import models
from tinycnn.explain import study_network, write
from tinycnn.explain.study import Example

CLICKS = """async () => {
  // From the event to a finished layout; twice, as a second click lets go, and the slower one counts.  The quickest of
  // several such pairs, as the machine may be busy with something else.
  const once = (act) => {
    const start = performance.now();
    act();
    document.body.getBoundingClientRect();
    return performance.now() - start;
  };
  const quickest = (act) => {
    let least = Infinity;
    for (let tries = 0; tries < 3 || (least > 50 && tries < 20); tries++)
      least = Math.min(least, Math.max(once(act), once(act)));
    return least;
  };
  const slowest = { time: 0, what: "" };
  const note = (what, time) => { if (time > slowest.time) Object.assign(slowest, { time, what }); };
  for (const button of document.querySelectorAll("#strip button")) {
    const name = button.title || "loss";
    note(`opening ${name}`, quickest(() => button.click()));
    for (const stage of document.querySelectorAll("#maps .stage")) {
      const box = stage.getBoundingClientRect(), role = stage.parentElement.dataset.role;
      const at = { clientX: box.left + box.width / 3, clientY: box.top + box.height / 3, bubbles: true };
      note(`pointing at ${role} of ${name}`, quickest(() => stage.dispatchEvent(new MouseEvent("click", at))));
    }
    const next = document.querySelector('#maps [aria-label="next channel"]');
    if (next) note(`another channel of ${name}`, quickest(() => next.click()));
  }
  for (const select of document.querySelectorAll("#choices select"))
    note(`choosing ${select.id}`, quickest(() => select.dispatchEvent(new Event("change"))));
  return slowest;
}"""


@pytest.mark.parametrize(("name", "shape"), [("lenet5", (1, 32, 32)), ("resnet20", (3, 32, 32))])
def test_it_is_quick(name, shape, tmp_path):
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    study = study_network(models.create(name), [Example(x, 3, "noise")], "0123456789", name, checks=False)
    path = write(study, tmp_path / "page.html")
    paints = []
    with chromium() as browser:
        for _ in range(3):
            with visit(browser, path) as page:
                page.wait_for_selector("body[data-ready=yes]")
                paints.append(page.evaluate("performance.getEntriesByType('paint')[0].startTime"))
        with visit(browser, path) as page:
            page.wait_for_selector("body[data-ready=yes]")
            slowest = page.evaluate(CLICKS)
    assert min(paints) < 1000, paints
    assert slowest["time"] < 100, slowest
