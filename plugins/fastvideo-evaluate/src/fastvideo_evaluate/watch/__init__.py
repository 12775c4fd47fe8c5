"""The callback `quality_watch`: whether the student's samples drift away from the teacher's while it trains."""
