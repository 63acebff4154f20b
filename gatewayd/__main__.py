"""python -m gatewayd"""
