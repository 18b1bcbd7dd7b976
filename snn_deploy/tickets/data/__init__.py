"""The data sets that ``train`` reads: scikit-learn's digits, and others from a user's folder."""
