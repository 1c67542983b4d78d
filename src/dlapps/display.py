"""What a notebook shows beside figures: source code, tables and answers."""

import inspect

import pandas as pd
from IPython.display import Markdown, display


def show_source(*objects) -> None:
    """Display the source code of functions or classes, coloured."""
    code = "\n\n".join(inspect.getsource(o) for o in objects)
    display(Markdown(f"```python\n{code}```"))


def show_table(rows, **formats) -> None:
    """Display a DataFrame, or rows as dictionaries, with "n/a" where there is no value.

    formats: {column: a format such as "{:.1%}", or a function from a value to a text}.
    """
    style = pd.DataFrame(rows).convert_dtypes().style.hide(axis="index")
    display(style.format(formats, precision=3, na_rep="n/a", thousands=","))


def answer(text: str) -> None:
    """Display the answer to a question."""
    display(Markdown(f"**Answer.** {text.strip()}"))


def in_numbers(text: str) -> None:
    """Display what the numbers of this run say, beside an answer that holds for all runs."""
    display(Markdown(f"**In numbers.** {text.strip()}"))
