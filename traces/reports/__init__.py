"""What a person reads of the record: listings, trees, differences and reports."""
