"""The report says the numbers that the notebooks saved, and of every other one how to get it."""

import json
import re
import shutil
from pathlib import Path

import pypdf
import pytest
from PIL import Image

from dlapps import runtime
from tools import report

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = {1: 11, 2: 11, 3: 4, 4: 11}  # how many each practical asks
# Figures of other people's reports and papers, and constants of the methods: all that is typed.
PUBLISHED = """0.912 0.906 0.896 0.894 0.888 0.901 0.861 0.880 0.917 0.868 0.910 0.908
    0.815 0.767 0.832 0.895 0.982 0.987 0.994 0.9955 0.985
    0.956"""
CONSTANTS = "0.485 0.456 0.406 0.229 0.224 0.225 0.001"

ABOUT = {"unit": "share", "data": "toy data", "model": "toy network", "seed": 0}
TRANSFER = {"scene_accuracy_efficientnet_lite0": {"value": 0.73219, **ABOUT}}
DOMAINS = {
    f"target_accuracy_{key}": {
        **ABOUT,
        "value": [mean - 0.01, mean + 0.01],
        "mean": mean,
        "std": 0.01414,
        "seed": [0, 7],
    }
    for key, mean in [
        ("source_only", 0.2),
        ("source_only_no_batch_norm", 0.25),
        ("source_only_target_statistics", 0.3),
        ("dann", 0.62347),
        ("trained_on_target", 0.9),
    ]
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with the report's sources, in which nothing has been computed."""
    shutil.copytree(ROOT / "report", tmp_path / "report", ignore=shutil.ignore_patterns("*.pdf"))
    monkeypatch.setattr(runtime, "project_root", lambda: tmp_path)
    return tmp_path


def save(project, notebook, records):
    path = project / "figures" / "full" / f"{notebook}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), "utf-8")


def typeset(profile):
    """Typeset the report; return it as pypdf reads it, and its text, white space as blanks."""
    pdf = pypdf.PdfReader(report.typeset(profile))
    return pdf, " ".join(" ".join(page.extract_text() for page in pdf.pages).split())


def test_without_any_number_it_asks_all_questions_and_says_how_to_compute(project):
    pdf, text = typeset("quick")
    titles = [item.title for item in flatten(pdf.outline)]
    for practical, count in QUESTIONS.items():
        numbers = [re.match(rf"{practical}\.(\d+) .", title) for title in titles]
        assert [int(n[1]) for n in numbers if n] == list(range(1, count + 1))
    for notebook in QUESTIONS:
        assert f"not run. To draw it: make notebooks PROFILE=quick NOTEBOOK={notebook}" in text
    assert not list((project / "report").glob(".*"))  # no temporary file is left


def flatten(outline):
    for item in outline:
        if isinstance(item, list):
            yield from flatten(item)
        else:
            yield item


def test_it_says_what_was_saved_and_names_what_was_not(project):
    missing = {"value": None, **ABOUT}
    save(project, "1_transfer_learning", TRANSFER | {"scene_accuracy_vgg16": missing})
    save(project, "3_domain_adaptation", DOMAINS)
    Image.new("RGB", (40, 30)).save(project / "figures" / "full" / "3_curves.png")
    _, text = typeset("full")
    assert "EfficientNet-Lite0 head 0.732" in text
    assert "VGG16 relu7 not run" in text
    assert "DANN, λ scheduled 0.6235 ± 0.0141" in text
    assert "classifies 62.3 ± 1.4% correctly, which closes 54% of the gap" in text
    assert "after each epoch. Data: toy data; network: toy network; seeds: 0, 7." in text
    assert "3_curves.png: not run" not in text
    assert "3_ablation.png: not run. To draw it: make notebooks PROFILE=full NOTEBOOK=3" in text
    assert "not run: judge_accuracy, frechet_real_real. To compute: " in text


def test_numbers_and_the_words_about_them_follow_the_records(project):
    records = json.loads(json.dumps(DOMAINS))
    records["target_accuracy_dann"] |= {"value": [0.2, 0.3], "mean": 0.25, "std": 0.07071}
    save(project, "3_domain_adaptation", records)
    _, text = typeset("full")
    assert "DANN, λ scheduled 0.2500 ± 0.0707" in text
    assert "classifies 25.0 ± 7.1% correctly, which is no gain" in text
    assert "0.6235" not in text and "62.3" not in text


def test_the_committed_figures_and_numbers_make_a_report(project):
    shutil.copytree(ROOT / "figures" / "full", project / "figures" / "full")
    records = json.loads((ROOT / "figures" / "full" / "2_visualization.json").read_text("utf-8"))
    pdf, text = typeset("full")
    assert f"Newton DDN gradients random 1.00 {records['minimal_l2_median']['value']:.2f}" in text
    assert len(pdf.pages) > 50


def test_nobody_typed_a_result():
    source = (ROOT / "report" / "report.typ").read_text("utf-8")
    typed = set(re.findall(r"(?<![\d.])0\.\d{3,}", source))
    assert typed <= set(PUBLISHED.split()) | set(CONSTANTS.split())


def test_every_reference_is_cited():
    source = (ROOT / "report" / "report.typ").read_text("utf-8")
    library = (ROOT / "report" / "references.bib").read_text("utf-8")
    assert sorted(re.findall(r"^@\w+\{(\w+),", library, re.M)) == sorted(
        set(re.findall(r"@([a-z]+\d{4})", source))
    )
