# SPDX-License-Identifier: MIT
"""What was measured: for each row, who, what, and one value for each round. As JSON, so that tables and chart are made without measuring again."""

import json
import statistics


class Row:
    """One row of the benchmark, as data."""

    def __init__(self, key, title, how):
        self.key, self.title, self.how = key, title, how
        self.base = None     # who the ratios are to
        self.measures = []   # [{"key", "title", "unit", "better"}]
        self.values = {}     # who -> measure -> [value of each round]
        self.facts = []      # [[what, value]]: checks, counts
        self.notes = []

    def measure(self, key, title, unit, better="more"):
        """`better`: "more" or "less"."""
        self.measures.append({"key": key, "title": title, "unit": unit, "better": better})

    def add(self, who, **values):
        for key, value in values.items():
            if value is not None:
                self.values.setdefault(who, {}).setdefault(key, []).append(value)

    def fact(self, what, value):
        self.facts.append([what, value])

    def as_dict(self):
        return {key: getattr(self, key) for key in ("key", "title", "how", "base", "measures", "values", "facts", "notes")}

    @classmethod
    def from_dict(cls, data):
        row = cls(data["key"], data["title"], data["how"])
        for key in ("base", "measures", "values", "facts", "notes"):
            setattr(row, key, data[key])
        return row

    # --- reading ---

    def get(self, who, key):
        return self.values.get(who, {}).get(key, [])

    def median(self, who, key):
        """None when it was not measured."""
        values = self.get(who, key)
        return statistics.median(values) if values else None

    def ratios(self, who, base, key):
        """Round by round: what was measured side by side is compared."""
        return [value / other for value, other in zip(self.get(who, key), self.get(base, key)) if other]

    def ratio(self, who, base, key):
        ratios = self.ratios(who, base, key)
        return statistics.median(ratios) if ratios else None

    def difference(self, who, base, key):
        pairs = [value - other for value, other in zip(self.get(who, key), self.get(base, key))]
        return statistics.median(pairs) if pairs else None


def save(path, about, rows):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"about": about, "rows": [row.as_dict() for row in rows]}, file, indent=1)
        file.write("\n")


def load(path):
    """Return: about, {key: Row}"""
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    return data["about"], {row["key"]: Row.from_dict(row) for row in data["rows"]}
