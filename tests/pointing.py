"""What a reader does on the page: choosing a layer, pointing at a cell, reading the sums."""


def open_layer(page, path):
    page.locator(f'#strip button[title^="{path}:"]').last.click()


def point(page, role, h, w, channels=()):
    """Step to channels, then click on a cell of a map; return the sum shown and the number recorded."""
    for side, channel in channels:
        while f"channel {channel} of" not in page.inner_text(f'[data-role="{side}"] .stepper'):
            page.click(f'[data-role="{side}"] [aria-label="next channel"]')
    stage = page.locator(f'[data-role="{role}"] .stage')
    view = [float(v) for v in page.get_attribute(f'[data-role="{role}"] svg', "viewBox").split()]
    box = stage.bounding_box()
    x, y = (w - view[0] + 0.5) / view[2] * box["width"], (h - view[1] + 0.5) / view[3] * box["height"]
    stage.click(position={"x": x, "y": y})
    return shown(page)


def shown(page):
    lines = page.locator("#said .sum").all_inner_texts()
    assert lines
    assert all("differs" not in line for line in lines), lines
    sums = [number(t) for t in page.locator("#said .sum b").all_inner_texts()]
    recorded = [number(t) for t in page.locator("#said .sum output").all_inner_texts()]
    return sums, recorded


def number(text):
    return float(text.replace("−", "-"))
