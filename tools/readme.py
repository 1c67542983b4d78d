"""Write the results and pictures of README.md from figures/full/: `python -m tools.readme`."""

import json
import math
import re
import sys
from dataclasses import dataclass

from dlapps import runtime
from dlapps.files import atomic_path

BEGIN, END = "<!-- begin: make readme -->", "<!-- end: make readme -->"


@dataclass(frozen=True)
class Row:
    """A number of the table: the file and key that hold it, what it is, what others reached."""

    notebook: str
    key: str
    what: str
    others: str = "–"


SCENES, LOOKS, DOMAINS, GANS = (
    "1_transfer_learning",
    "2_visualization",
    "3_domain_adaptation",
    "4_gans",
)
ROWS = (
    Row(
        SCENES,
        "scene_accuracy_efficientnet_lite0",
        "accuracy, features of one network",
        "VGG16 0.888–0.912, ResNet-50 0.917, AlexNet 0.868 (earlier reports)",
    ),
    Row(SCENES, "scene_accuracy_vgg16_relu5", "accuracy, VGG16's convolutions", "0.894"),
    Row(
        SCENES,
        "scene_accuracy_best",
        "accuracy, best by validation",
        "0.917 (earlier reports), 0.956 (public record)",
    ),
    Row(
        SCENES,
        "scene_accuracy_best_10splits",
        "the same over ten splits, chosen within each",
        "0.956 (public record)",
    ),
    Row(SCENES, "scene_accuracy_trained_from_random", "accuracy, trained from scratch"),
    Row(LOOKS, "fooling_l2_median", "length of the practical's fooling change, median"),
    Row(LOOKS, "fooling_success_rate_8bit", "images that fool once saved, rounded while it climbs"),
    Row(LOOKS, "minimal_l2_median", "length of the shortest change found, median"),
    Row(LOOKS, "minimal_l2_median_8bit", "the same, of images that can be saved"),
    Row(LOOKS, "fmn_l2_median", "the same by FMN, with as many gradients"),
    Row(LOOKS, "superdeepfool_l2_median", "the same by SuperDeepFool"),
    Row(LOOKS, "minimal_l2_median_untargeted", "the same to any other class"),
    Row(LOOKS, "class_image_second_network_top1", "class images recognised by another network"),
    Row(LOOKS, "class_image_other_family_top1", "the same, by a network of another family"),
    Row(LOOKS, "class_image_other_family_top1_maco", "the same, with fixed magnitudes (MACO)"),
    Row(DOMAINS, "target_accuracy_source_only", "accuracy, source only", "0.52–0.57"),
    Row(
        DOMAINS,
        "target_accuracy_source_only_target_statistics",
        "the same, batch norm's averages of the target",
    ),
    Row(
        DOMAINS,
        "target_accuracy_dann",
        "accuracy, DANN",
        "0.767 (JMLR 2016), 0.815 (ICML 2015); again by others 0.72–0.92",
    ),
    Row(
        DOMAINS,
        "target_accuracy_best",
        "accuracy, best without labels of the target",
        "DSN 0.832, PixelDA 0.982, DIRT-T 0.987, SBADA-GAN 0.994",
    ),
    Row(DOMAINS, "target_accuracy_bound_best", "its upper bound, with labels of the target"),
    Row(DOMAINS, "target_accuracy_large_recipe", "accuracy, large recipe (needs a GPU)"),
    Row(
        DOMAINS,
        "target_accuracy_trained_on_target",
        "accuracy, trained on the target",
        "0.96–0.99",
    ),
    Row(GANS, "frechet_dcgan_best", "Fréchet distance to real digits, own judge"),
    Row(
        GANS,
        "cdcgan_label_agreement",
        "images that show the digit asked for",
        "0.9955, by a judge of 0.985",
    ),
    Row(GANS, "cdcgan_coverage_ratio", "coverage of real digits, against real by real"),
    Row(GANS, "cdcgan_gan_train_accuracy", "accuracy on real digits, taught by generated ones"),
    Row(GANS, "cgan_label_agreement", "the digit asked for, fully connected networks"),
    Row(GANS, "cgan_coverage_ratio", "coverage of real digits, fully connected networks"),
)
PICTURES = {  # file in figures/full/: what it shows
    "1_confusion_best.png": "Confusion matrix of the 15 scene classes",
    "1_mistakes.png": "The fifteen most confident mistakes, with the true class and the one called",
    "2_saliency_methods.svg": "Six photographs, each with four kinds of saliency maps",
    "2_fooling.svg": "Four photographs, their fooled copies, and the differences magnified",
    "2_class_image_ways.svg": "Six classes as four recipes paint them for one network",
    "3_features.png": "Digits of two domains in the plane of t-SNE, before and after adaptation",
    "3_ablation.png": "Accuracy of domain adaptation with each trick alone and together",
    "4_cdcgan_columns.png": "Generated digits, one label per row and one noise vector per column",
}


def cell(entry):
    """Return how the table shows a number's record; None is a number that was never computed."""
    if entry is None:
        return "not run"
    value, deviation = entry["value"], None
    if "mean" in entry:
        value, deviation = entry["mean"], entry["std"]
    if value is None:
        return "not available"
    if isinstance(value, int):
        return f"{value:,}"
    decimals = 3 if abs(value) < 10 else 1
    if deviation and not round(deviation, decimals):  # "± 0.000" would say that there is none
        decimals = math.ceil(-math.log10(deviation))
    text = f"{value:.{decimals}f}"
    return text if deviation is None else f"{text} ± {deviation:.{decimals}f}"


def table(numbers):
    """Return the Markdown table of ROWS from `numbers`, {notebook: its record}."""
    lines = ["| | number | here | data; network | elsewhere |", "|---|---|---|---|---|"]
    for row in ROWS:
        entry = numbers.get(row.notebook, {}).get(row.key)
        source = "; ".join(filter(None, (entry["data"], entry["model"]))) if entry else "–"
        what = f"{row.what}<br>`{row.key}`"
        lines.append(f"| {row.notebook[0]} | {what} | {cell(entry)} | {source} | {row.others} |")
    return "\n".join(lines)


def gallery(folder):
    """Return the pictures that are in `folder`, and a line that names those that are not yet."""
    there = [name for name in PICTURES if (folder / name).exists()]
    lines = [
        f'<img src="figures/full/{name}" alt="{PICTURES[name]}" width="49%">' for name in there
    ]
    absent = [f"`{name}`" for name in PICTURES if name not in there]
    if absent:
        lines += ["", f"Not run: {', '.join(absent)}."]
    return "\n".join(lines)


def render(text, root):
    """Return README's `text` with what stands between the two marks written anew."""
    if not 0 <= text.find(BEGIN) < text.find(END):
        raise ValueError(f"the text lacks the marks {BEGIN} and, after it, {END}")
    folder = root / "figures" / "full"
    numbers = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted(folder.glob("[0-9]_*.json"))
    }
    new = f"{BEGIN}\n\n{table(numbers)}\n\n{gallery(folder)}\n\n{END}"
    return re.sub(f"{BEGIN}.*{END}", lambda _: new, text, flags=re.DOTALL)


def main():
    """Write README.md anew and return 0."""
    root = runtime.project_root()
    path = root / "README.md"
    text = render(path.read_text("utf-8"), root)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
