"""The generators: everything that makes rows of a class, behind one face.

`catalogue` names them and says what each reads (it imports no torch), `fit` makes one from training rows, and
what it makes draws rows: ``draw(labels, seed, first_row)``, see `base`.
"""
