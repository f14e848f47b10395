"""Statistics of votes and answers: numpy and scipy only, every method with its source.

`intervals` of two models on the same prompts · `winrate` with ties, clustered, style-controlled · `ratings`
(Bradley-Terry, Davidson, Elo) · `sequential` tests that may be looked at every day · `ordered`: verdicts asked in both
orders, and the sequential probability ratio test of game testing · `agreement` of judge and people · `power` ·
`calibration` of probabilities.
"""
