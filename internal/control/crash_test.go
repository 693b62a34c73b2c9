package control

func openAndDie(url, moment string) {}
