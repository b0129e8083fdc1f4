"""A demo day of orders in three regions: make it, and join what the regions counted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from .files import prune, write_json, write_text
from .page import bar, card, cards, page, section, table

__all__ = ["NothingToJoin", "join", "make_orders", "summarise"]

_REGIONS = {"eu": 1.0, "us": 1.4, "apac": 0.8}


class NothingToJoin(Exception):
    """A join without one region's figures."""

    def __str__(self) -> str:
        return f"{self.args[0]}: no region left its figures"


def make_orders(directory: str, seed: str, orders: int | str = 300) -> dict[str, Any]:
    """Write `orders.csv` with `region,item,cents` lines into `directory`: the same orders for the same seed.

    Stands for what a download or a query would do here.
    """
    # Not for secrets: the same seed must give the same day again, so a retry changes nothing.
    chance = random.Random(seed)
    regions, weights = list(_REGIONS), list(_REGIONS.values())
    lines = ["region,item,cents"]
    for region in chance.choices(regions, weights, k=int(orders)):
        lines.append(f"{region},item-{chance.randint(1, 9)},{chance.randint(199, 9_999)}")
    file = write_text(f"{directory}/orders.csv", "\n".join(lines) + "\n")
    return {"file": str(file), "orders": len(lines) - 1}


def summarise(file: str, region: str, directory: str) -> dict[str, Any]:
    """Count one region's orders and write them to `directory`/`region`.json: region_totals.sh, in Python."""
    rows = [line.split(",") for line in Path(file).read_text(encoding="utf-8").splitlines()[1:]]
    cents = [int(each[2]) for each in rows if each[0] == region]
    figures = {"region": region, "orders": len(cents), "cents": sum(cents)}
    write_json(f"{directory}/{region}.json", figures)
    return figures


def join(directory: str, report: str, run_id: str, keep: int = 48) -> dict[str, Any]:
    """Write the page of the regions that came through. Raises NothingToJoin when none did."""
    figures = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(directory).glob("*.json"))]
    if not figures:
        raise NothingToJoin(directory)
    orders, cents = sum(each["orders"] for each in figures), sum(each["cents"] for each in figures)
    text = _render(figures, orders, cents, run_id)
    written = write_text(report, text)
    write_text(written.with_name("latest.html"), text)
    prune(written.parent, "*.html", keep + 1)
    print(f"{len(figures)} regions, {orders} orders, {cents / 100:,.2f}")
    return {"report": str(written), "regions": len(figures), "orders": orders, "cents": cents}


def _render(figures: list[dict[str, Any]], orders: int, cents: int, run_id: str) -> str:
    absent = sorted(set(_REGIONS) - {each["region"] for each in figures})
    rows = [
        [
            each["region"].upper(),
            bar(100 * each["cents"] / max(cents, 1), 101, 101),
            each["orders"],
            f"{each['cents'] / 100:,.2f}",
        ]
        for each in sorted(figures, key=lambda each: -each["cents"])
    ]
    return page(
        "Sales by region",
        f"Without {', '.join(absent)}." if absent else "All regions reported.",
        [
            cards(
                card("Sales", f"{cents / 100:,.2f}"),
                card("Orders", f"{orders:,}"),
                card("Regions", f"{len(figures)} of {len(_REGIONS)}"),
            ),
            section("Share", table(["Region", "Of all sales", "#Orders", "#Sales"], rows, "No orders.")),
        ],
        f"Demo data. Written by run {run_id}.",
    )
