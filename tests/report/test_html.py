"""Elements and what is escaped in them."""

from tinycnn.report.html import Html, scrolling, table, tag, text


def test_text_is_escaped_and_html_is_not_twice():
    inner = tag("b", "1 < 2 & \"three\" 'four'")
    assert inner == "<b>1 &lt; 2 &amp; &quot;three&quot; &#x27;four&#x27;</b>"
    assert tag("p", inner, Html("<br>"), 5, None) == f"<p>{inner}<br>5</p>"
    assert text(inner) is inner
    assert isinstance(inner, Html)


def test_attributes():
    assert tag("i", class_="a", aria_label='"><script>', tabindex=0) == (
        '<i class="a" aria-label="&quot;&gt;&lt;script&gt;" tabindex="0"></i>'
    )
    assert tag("i", a=None, b=False, c=True, d="") == '<i c d=""></i>'
    assert tag("meta", name="viewport") == '<meta name="viewport">'


def test_a_table_names_its_rows_and_columns():
    made = table(["<a>", "b"], [["x", 1], ["y", None]], "caption", class_="k")
    assert made == scrolling(
        Html(
            '<table class="k"><caption>caption</caption><thead><tr><th scope="col">&lt;a&gt;</th>'
            '<th scope="col">b</th></tr></thead><tbody><tr><th scope="row">x</th><td>1</td></tr>'
            '<tr><th scope="row">y</th><td></td></tr></tbody></table>'
        ),
        "caption",
    )
