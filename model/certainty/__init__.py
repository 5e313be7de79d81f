"""Held-out predictions in, what a classifier may claim to know out.

`calibrate` makes probabilities mean what they say, `reliability` measures whether they do,
`conformal` names every class that cannot be ruled out, `applicability` tells where the classifier
has seen nothing alike. All of it is learned from samples whose groups the model did not learn from.
"""
