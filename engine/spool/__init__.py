"""The spool: files in which events lie until they are safe elsewhere; what is damaged, left behind or retired."""
