"""The command ``nodedb-ring top``: watches a shared bus. Only drawing on a terminal needs ``rich``.

``cli.py`` has its options and ``command.py`` runs it. ``watch.py`` takes samples; ``text.py`` prints them as tables and
JSON; ``terminal.py`` draws them, with the table of ``view.py`` and the bars of ``sparkline.py``.
"""
