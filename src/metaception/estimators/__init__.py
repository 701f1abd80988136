"""What a trained run is used through: scikit-learn estimators, and models as portable files."""
